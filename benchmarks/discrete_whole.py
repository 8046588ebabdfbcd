"""The whole loop of VQ-Diffusion beside diffusers' pipeline: same weights, same texts, from noise to tokens.

    OMP_NUM_THREADS=2 python benchmarks/discrete_whole.py

Theirs is the loop of VQDiffusionPipeline.__call__, its calls in its order; ours is generate_tokens with the ancestral
sampler. The network has the width, the tokens and the codes of microsoft/vq-diffusion-ithq and fewer layers, so that
what is not the network weighs more here than there. Wall-clock seconds a step, medians of alternating rounds.
"""

import argparse

import torch
from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler
from discrete_steps import alternated
from torch import Tensor

from neblina.core.conditions import Condition, Wants
from neblina.denoisers.categorical import CategoricalDenoiser
from neblina.nets.token_config import TokenTransformerConfig
from neblina.nets.token_transformer import TokenTransformer
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.kernels import mask_and_replace
from neblina.samplers.generate_tokens import generate_tokens

CODES, SIDE, WORDS, TEXT = 4096, 32, 77, 512


def theirs(
    net: Transformer2DModel, scheduler: VQDiffusionScheduler, text: Tensor, steps: int, guidance: float, rate: float
) -> Tensor:
    """Tokens by diffusers' loop, shape (B, N); the text of nothing stands before the text where it guides."""
    scheduler.set_timesteps(steps)
    tokens = torch.full((len(text) // (1 + (guidance > 1)), SIDE**2), CODES)
    for t in scheduler.timesteps:
        asked = torch.cat([tokens] * 2) if guidance > 1 else tokens
        said = net(asked, encoder_hidden_states=text, timestep=t).sample
        if guidance > 1:
            away, towards = said.chunk(2)
            said = away + guidance * (towards - away)
            said = said - torch.logsumexp(said, dim=1, keepdim=True)
        said = VQDiffusionPipeline.truncate(None, said, rate).clamp(-70)
        tokens = scheduler.step(said, timestep=t, sample=tokens).prev_sample
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    shape = {
        "num_attention_heads": 16,
        "attention_head_dim": 64,
        "num_layers": given.layers,
        "cross_attention_dim": TEXT,
        "attention_bias": True,
        "sample_size": SIDE,
        "num_vector_embeds": CODES + 1,
        "activation_fn": "geglu-approximate",
        "num_embeds_ada_norm": 100,
    }
    peer = Transformer2DModel(**shape).eval()
    net = TokenTransformer(TokenTransformerConfig.from_dict(dict(peer.config))).eval()
    net.load_state_dict(peer.state_dict())
    process = DiscreteProcess(mask_and_replace(CODES, masked=0.9))
    denoiser = CategoricalDenoiser(net, process, 100, wants=Wants(text=TEXT))
    text, nothing = torch.randn(2, 1, WORDS, TEXT)
    scheduler = VQDiffusionScheduler(num_vec_classes=CODES + 1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.layers} layers; seconds a step\n")
    print("| guidance | truncation | diffusers | ours | theirs over ours |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for guidance in (1.0, 5.0):
        for rate in (1.0, 0.86):
            both = torch.cat([nothing, text]) if guidance > 1 else text
            asked = Condition(text=text, unsaid=Condition(text=nothing) if guidance > 1 else None)
            slow, quick = alternated(
                given.rounds + 1,
                lambda both=both, guidance=guidance, rate=rate: theirs(
                    peer, scheduler, both, given.steps, guidance, rate
                ),
                lambda asked=asked, guidance=guidance, rate=rate: generate_tokens(
                    denoiser,
                    (SIDE, SIDE),
                    [0],
                    condition=asked,
                    sampler="ancestral",
                    steps=given.steps,
                    guidance=guidance,
                    truncation=rate,
                ),
            )
            print(
                f"| {guidance:g} | {rate:g} | {slow / given.steps:.3f} | {quick / given.steps:.3f} "
                f"| {slow / quick:.2f}x |",
                flush=True,
            )


if __name__ == "__main__":
    main()
