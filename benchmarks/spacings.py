"""How far DDIM and PNDM are from diffusers' by how their times are spaced: a small Stable Diffusion 1, guidance 3.

    python benchmarks/spacings.py

Both begin with the same noise and ask the same random network; what is printed is the largest difference of the latents
at the end, relative to the largest latent. diffusers steps to t − ⌊T/N⌋ whatever is visited next (T = 1000).
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(ROOT / "tests" / place) for place in ("", "encoders")]
STEPS = (5, 6, 7, 9, 10, 20, 30, 50)


def main() -> None:
    import pipelines
    import torch
    from beside import SEED, both, far, latents_of, noise_of
    from diffusers import DDIMScheduler, PNDMScheduler

    logging.disable(logging.WARNING)
    kinds = {DDIMScheduler: pipelines.SD, PNDMScheduler: {**pipelines.SD_BETAS, "skip_prk_steps": True}}
    print("| scheduler | spacing | " + " | ".join(f"N = {steps}" for steps in STEPS) + " |")
    print("| --- | --- |" + " ---: |" * len(STEPS))
    with tempfile.TemporaryDirectory() as place:
        first = both(pipelines.sd1(Path(place)), Path(place))
        for kind, settings in kinds.items():
            for spacing in ("leading", "trailing", "linspace"):
                folder = Path(place) / f"{kind.__name__}-{spacing}"
                pair = first.sampled_by(kind(**{**settings, "timestep_spacing": spacing}), folder)
                apart = []
                for steps in STEPS:
                    asked = {"guidance_scale": 3.0, "num_inference_steps": steps, "output_type": "latent"}
                    noise = noise_of(pair.model, 1)
                    with torch.no_grad():
                        theirs = pair.theirs("a cat", latents=noise, **asked).images
                    ours = latents_of(
                        lambda pair=pair, steps=steps: pair.model.generate(
                            "a cat", guidance=3.0, steps=steps, seed=SEED
                        )
                    )
                    apart.append(far(ours, theirs))
                print(
                    f"| {kind.__name__} | {spacing} | "
                    + " | ".join(f"{f'{one:.2g}' if one > 1e-5 else '< 1e-5'}" for one in apart)
                    + " |"
                )


if __name__ == "__main__":
    main()
