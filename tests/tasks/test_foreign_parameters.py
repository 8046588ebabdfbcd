"""What other programs say of a picture becomes our arguments or is told with a reason, never dropped."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from neblina.core.errors import DataError
from neblina.encoders.weights import parse_weights
from neblina.processes.grids import grids
from neblina.samplers import samplers
from neblina.tasks.attention_marks import from_a1111, from_comfyui
from neblina.tasks.foreign_parameters import read_foreign
from neblina.tasks.foreign_parts import GRIDS, SAMPLERS, ForeignParameters
from neblina.tasks.provenance import Provenance, describe, save_picture


def png(place: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (8, 8)).save(place, pnginfo=info)
    return place


def a1111(text: str, folder: Path) -> ForeignParameters:
    return read_foreign(png(folder / "a.png", parameters=text))


def comfyui(graph: Any, folder: Path) -> ForeignParameters:
    return read_foreign(png(folder / "a.png", prompt=json.dumps(graph), workflow="{}"))


def told(found: ForeignParameters) -> set[str]:
    assert all(one.reason and one.name for one in found.unmapped)
    return {one.name for one in found.unmapped}


CLASSIC = """a photo of an astronaut, (highly detailed:1.2), ((sharp)), [blurry] \\(film\\) <lora:add_detail:0.8>
second line
Negative prompt: ugly, (bad hands)
lowres
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 3141592653, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5-pruned-emaonly, Clip skip: 2, ENSD: 31337, Lora hashes: "add_detail: 7c6bad76eb54", Version: v1.6.0"""


def test_a_picture_of_the_web_interface_is_read(tmp_path: Path) -> None:
    found = a1111(CLASSIC, tmp_path)
    assert found.arguments == {
        "prompt": "a photo of an astronaut, (highly detailed:1.2), (sharp:1.21), (blurry:0.9091) \\(film\\) \n"
        "second line",
        "negative": "ugly, (bad hands:1.1)\nlowres",
        "loras": [["add_detail", 0.8]],
        "sampler": "dpmpp_2m",
        "grid": "karras",
        "steps": 28,
        "guidance": 7.5,
        "seed": 3141592653,
        "size": "512x768",
        "clip_skip": 1,
    }
    assert (found.source, found.model, found.model_hash) == (
        "AUTOMATIC1111 v1.6.0",
        "v1-5-pruned-emaonly",
        "6ce0161689",
    )
    assert told(found) == {"Seed", "ENSD", "Lora hashes", "Clip skip"}
    assert {one.value for one in found.unmapped} >= {"31337", "add_detail: 7c6bad76eb54"}


@pytest.mark.parametrize(
    ("line", "arguments", "names"),
    [
        ("Steps: 20, Sampler: Euler a, Schedule type: Automatic", {"sampler": "euler_ancestral"}, {"schedule"}),
        (
            "Steps: 20, Sampler: DPM++ 2M, Schedule type: Automatic",
            {"sampler": "dpmpp_2m", "grid": "karras"},
            set(),
        ),
        ("Steps: 20, Sampler: DPM++ 2M SDE, Schedule type: Automatic", {"sampler": "dpmpp_2m_sde"}, {"schedule"}),
        (
            "Steps: 20, Sampler: DPM++ 2M SDE Exponential, Tiling: True",
            {"sampler": "dpmpp_2m_sde"},
            {"schedule", "Tiling"},
        ),
        ("Steps: 20, Sampler: Euler, Schedule type: Simple", {"sampler": "euler", "grid": "trailing"}, set()),
        ("Steps: 20, Sampler: UniPC, Schedule type: SGM Uniform", {"sampler": "unipc", "grid": "uniform"}, set()),
        ("Steps: 20, Sampler: DPM++ 3M SDE Karras, RNG: CPU", {"grid": "karras"}, {"sampler", "RNG"}),
        ("Steps: 20, Sampler: LCM, Schedule type: Beta", {}, {"sampler", "schedule"}),
        (
            "Steps: 20, Sampler: DDIM, Schedule type: Karras, Eta: 0.5",
            {"sampler": "ddim", "grid": "karras", "settings": {"eta": 0.5}},
            set(),
        ),
        ("Steps: 20, Sampler: LMS Karras, Eta: 0.5", {"sampler": "lms", "grid": "karras"}, {"Eta"}),
        ("Steps: 20, Sampler: DDIM, CFG scale: 7", {"sampler": "ddim", "guidance": 7.0}, {"schedule"}),
        (
            "Steps: 20, Denoising strength: 0.7, Hires upscale: 2, Hires upscaler: Latent",
            {},
            {"Denoising strength", "Hires upscale", "Hires upscaler"},
        ),
        ("Steps: 20, Denoising strength: 0.7, Mask blur: 4", {}, {"Denoising strength", "Mask blur"}),
        (
            'Steps: 20, VAE: "a, b: c.pt", Template: "x \\"quoted\\", y", Clip skip: 1',
            {},
            {"VAE", "Template"},
        ),
        ("Steps: 20, CFG scale: nan, Seed: abc, Size: wide", {}, {"CFG scale", "Seed", "Size"}),
    ],
)
def test_each_setting_becomes_an_argument_or_is_told(
    line: str, arguments: dict[str, Any], names: set[str], tmp_path: Path
) -> None:
    found = a1111(f"a cat\n{line}", tmp_path)
    assert found.arguments == {"prompt": "a cat", "steps": 20, **arguments}
    assert told(found) == names


def test_quoted_values_are_told_whole(tmp_path: Path) -> None:
    found = a1111('a cat\nSteps: 20, VAE: "a, b: c.pt", Template: "x \\"quoted\\", y"', tmp_path)
    assert {one.name: one.value for one in found.unmapped} == {"VAE": "a, b: c.pt", "Template": 'x "quoted", y'}


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        ("just words", "just words", None),
        ("a sign that says: stop, right: now", "a sign that says: stop, right: now", None),
        ("Negative prompt: nothing\nSteps: 5, Seed: 1, Size: 8x8", "", "nothing"),
        ("Steps: 5, Seed: 1, Size: 8x8", "", None),
        ("雪の中の猫\nSteps: 5, Seed: 1, Size: 8x8", "雪の中の猫", None),
        ("a\n\nb\nSteps: 5", "a\n\nb", None),
    ],
)
def test_prompts_of_any_lines_are_told_from_settings(
    text: str, prompt: str, negative: str | None, tmp_path: Path
) -> None:
    found = a1111(text, tmp_path)
    assert found.arguments["prompt"] == prompt
    assert found.arguments.get("negative") == negative


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "ascii", "none"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_jpegs_comment_says_the_same(encoding: str, suffix: str, tmp_path: Path) -> None:
    text = CLASSIC if encoding.startswith("utf") else CLASSIC.encode("ascii").decode()
    head = {"utf-16-be": b"UNICODE\0", "utf-16-le": b"UNICODE\0", "ascii": b"ASCII\0\0\0", "none": b""}[encoding]
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = head + text.encode(encoding if encoding.startswith("utf") else "ascii")
    Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}", exif=exif)
    assert read_foreign(tmp_path / f"a{suffix}") == a1111(CLASSIC, tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a cat", "a cat"),
        ("(cat)", "(cat:1.1)"),
        ("((cat))", "(cat:1.21)"),
        ("(((cat)))", "(cat:1.331)"),
        ("[cat]", "(cat:0.9091)"),
        ("[[cat]]", "(cat:0.8264)"),
        ("([cat])", "cat"),
        ("((a) b)", "(a:1.21)( b:1.1)"),
        ("(a (b:1.5) c:2)", "(a :2)(b:3)( c:2)"),
        ("(a:.5)", "(a:0.5)"),
        ("(a:-1)", "(a:-1)"),
        ("( a : 1.2 )", "( a :1.2)"),
        ("a (b", "a (b:1.1)"),
        ("a [b", "a (b:0.9091)"),
        ("a) b", "a\\) b"),
        ("a:1.2) b", "a:1.2\\) b"),
        (r"\(a\) (b\)c)", r"\(a\) (b\)c:1.1)"),
        (r"\[a\] a\b", r"[a] a\b"),
        ("(12:30)", "(12:30)"),
        ("at (12:30 pm)", "at (12:30 pm:1.1)"),
        ("( )", " "),
        ("", ""),
    ],
)
def test_brackets_become_explicit_weights(theirs: str, ours: str) -> None:
    assert from_a1111(theirs).prompt == ours
    assert from_a1111(theirs).unmapped == ()


def test_square_brackets_are_text_in_comfyui() -> None:
    assert from_comfyui(r"[cat] ((dog)) \(x\)").prompt == r"[cat] (dog:1.21) \(x\)"
    assert from_comfyui("a embedding:bad_hands, b").unmapped[0].value == "embedding:bad_hands"


@pytest.mark.parametrize(
    ("theirs", "ours", "names"),
    [
        ("a [cat:dog:0.5] here", "a cat here", {"prompt editing"}),
        ("a [dog:10] here", "a here", {"prompt editing"}),
        ("a [cat::10] here", "a cat here", {"prompt editing"}),
        ("a [x [cat:dog:3]:y:5] z", "a x cat z", {"prompt editing"}),
        ("a [cat|dog] here", "a cat here", {"alternating words"}),
        ("a cat AND a dog", "a cat AND a dog", {"AND"}),
        ("a cat BREAK a dog", "a cat a dog", {"BREAK"}),
        ("a <hypernet:anime:0.5>", "a", {"hypernet"}),
        ("a <lora:x:1:0.5> b", "a b", {"lora"}),
        ("a <lora:x:heavy> b", "a b", {"lora"}),
        ("BREAKFAST, BRAND", "BREAKFAST, BRAND", set()),
    ],
)
def test_what_a_prompt_cannot_say_here_is_told(theirs: str, ours: str, names: set[str]) -> None:
    marked = from_a1111(theirs)
    assert marked.prompt == ours
    assert {one.name for one in marked.unmapped} == names


def test_loras_are_named_with_their_scales() -> None:
    marked = from_a1111("<lora:a:0.5> x <lora:b> <lora:c:-1>")
    assert marked.loras == (["a", 0.5], ["b", 1.0], ["c", -1.0])
    assert marked.prompt == "x"


def weighed(prompt: str, *, square: bool) -> list[tuple[str, float]]:
    """Their rules a second time, letter by letter: each letter with the product of the brackets that it stands in."""
    letters: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, factor: float) -> None:
        start = opened[bracket].pop()
        letters[start:] = [(letter, weight * factor) for letter, weight in letters[start:]]

    place = 0
    while place < len(prompt):
        letter, number = prompt[place], re.match(r":\s*([+-]?(\d+\.?\d*|\.\d+))\s*\)", prompt[place:])
        step = 1
        if letter == "\\" and prompt[place + 1 : place + 2] in tuple("()[]\\" if square else "()\\"):
            letters.append((prompt[place + 1], 1.0))
            step = 2
        elif letter == "(" or (letter == "[" and square):
            opened[letter].append(len(letters))
        elif letter == ")" and opened["("]:
            close("(", 1.1)
        elif letter == "]" and opened["["]:
            close("[", 1 / 1.1)
        elif number and opened["("]:
            close("(", float(number[1]))
            step = len(number[0])
        else:
            letters.append((letter, 1.0))
        place += step
    for bracket, factor in (("(", 1.1), ("[", 1 / 1.1)):
        while opened[bracket]:
            close(bracket, factor)
    return letters


@pytest.mark.parametrize("square", [True, False])
def test_our_reader_of_prompts_finds_their_weights_on_their_letters(square: bool) -> None:
    random = Random(0)
    compared = 0
    for _ in range(5000):
        theirs = "".join(random.choice("ab ()[]:\\1.2") for _ in range(random.randrange(20)))
        marked = (from_a1111 if square else from_comfyui)(theirs)
        if marked.unmapped:
            continue
        ours = parse_weights(marked.prompt)
        # a space may be set between a backslash and a bracket, and weighs nothing anywhere
        found = [(letter, weight) for letter, weight in zip(ours.text, ours.weights, strict=True) if letter != " "]
        wanted = [(letter, weight) for letter, weight in weighed(theirs, square=square) if letter != " "]
        assert [letter for letter, _ in found] == [letter for letter, _ in wanted], theirs
        assert [weight for _, weight in found] == pytest.approx([weight for _, weight in wanted], rel=1e-3), theirs
        compared += 1
    assert compared > 2000


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def default_graph() -> dict[str, Any]:
    """As ComfyUI's first workflow is saved."""
    return {
        "3": node(
            "KSampler",
            seed=156680208700286,
            steps=20,
            cfg=8,
            sampler_name="euler_ancestral",
            scheduler="karras",
            denoise=1,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="beautiful scenery, (bottle), [x]", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


DEFAULT = {
    "seed": 156680208700286,
    "steps": 20,
    "guidance": 8.0,
    "sampler": "euler_ancestral",
    "grid": "karras",
    "prompt": "beautiful scenery, (bottle:1.1), [x]",
    "negative": "text, watermark",
    "size": "512x768",
}


def test_a_negative_prompt_without_guidance_is_told(tmp_path: Path) -> None:
    graph = default_graph()
    graph["3"]["inputs"]["cfg"] = 1
    found = comfyui(graph, tmp_path)
    assert found.arguments["guidance"] == 1
    assert "negative" not in found.arguments
    assert {one.name: one.value for one in found.unmapped}["negative"] == "text, watermark"
    found = a1111("a cat\nNegative prompt: a dog\nSteps: 20, CFG scale: 1", tmp_path)
    assert found.arguments == {"prompt": "a cat", "steps": 20, "guidance": 1.0}
    assert {one.name: one.value for one in found.unmapped} == {"Negative prompt": "a dog"}


def test_a_picture_of_comfyui_is_read(tmp_path: Path) -> None:
    found = comfyui(default_graph(), tmp_path)
    assert found.arguments == DEFAULT
    assert (found.source, found.model) == ("ComfyUI", "v1-5-pruned-emaonly.safetensors")
    assert told(found) == {"seed"}


def test_loras_a_clip_layer_and_linked_values_are_followed(tmp_path: Path) -> None:
    graph = default_graph()
    graph |= {
        "10": node(
            "LoraLoader",
            lora_name="first.safetensors",
            strength_model=0.5,
            strength_clip=0.5,
            model=["4", 0],
            clip=["4", 1],
        ),
        "11": node(
            "LoraLoader",
            lora_name="second.safetensors",
            strength_model=1,
            strength_clip=0,
            model=["10", 0],
            clip=["10", 1],
        ),
        "12": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["11", 1]),
        "13": node("PrimitiveInt", value=33),
        "14": node("Reroute", **{"": ["13", 0]}),
        "15": node("StringConstant", string="from elsewhere"),
        "16": node("MathExpression", expression="a * 2", a=["13", 0]),
    }
    graph["3"]["inputs"] |= {"model": ["11", 0], "steps": ["14", 0], "cfg": ["16", 0]}
    graph["6"]["inputs"] |= {"clip": ["12", 0], "text": ["15", 0]}
    found = comfyui(graph, tmp_path)
    assert found.arguments["loras"] == [["first.safetensors", 0.5], ["second.safetensors", 1.0]]
    assert (found.arguments["steps"], found.arguments["prompt"]) == (33, "from elsewhere")
    assert found.arguments["clip_skip"] == 1
    assert "guidance" not in found.arguments
    assert told(found) == {"seed", "cfg", "LoraLoader", "stop_at_clip_layer"}
    assert next(one for one in found.unmapped if one.name == "cfg").value == "node 16 (MathExpression)"


def test_what_lies_between_is_told(tmp_path: Path) -> None:
    graph = default_graph()
    graph |= {
        "10": node("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True, model=["4", 0]),
        "11": node("ControlNetApply", strength=0.9, conditioning=["6", 0], control_net=["12", 0], image=["13", 0]),
        "12": node("ControlNetLoader", control_net_name="canny.pth"),
        "13": node("LoadImage", image="edges.png"),
        "14": node("ImageUpscaleWithModel", upscale_model=["15", 0], image=["8", 0]),
        "15": node("UpscaleModelLoader", model_name="x4.pth"),
        "16": node("LoadImage", image="not used.png"),
    }
    graph["3"]["inputs"] |= {"model": ["10", 0], "positive": ["11", 0], "scheduler": "normal", "sampler_name": "lcm"}
    graph["5"]["inputs"]["batch_size"] = 4
    graph["9"]["inputs"]["images"] = ["14", 0]
    found = comfyui(graph, tmp_path)
    assert {name: found.arguments[name] for name in ("prompt", "negative")} == {
        "prompt": DEFAULT["prompt"],
        "negative": DEFAULT["negative"],
    }
    assert not {"sampler", "grid"} & set(found.arguments)
    assert told(found) == {
        "seed",
        "sampler",
        "schedule",
        "batch_size",
        "ModelSamplingDiscrete",
        "ControlNetApply",
        "ImageUpscaleWithModel",
    }


def test_the_first_of_two_passes_is_read_and_the_other_told(tmp_path: Path) -> None:
    graph = default_graph()
    second = graph["3"]["inputs"] | {"seed": 5, "denoise": 0.5, "latent_image": ["11", 0]}
    graph |= {"10": node("KSampler", **second), "11": node("LatentUpscale", width=1024, samples=["3", 0])}
    graph["8"]["inputs"]["samples"] = ["10", 0]
    found = comfyui(graph, tmp_path)
    assert found.arguments == DEFAULT
    assert told(found) == {"seed", "KSampler", "LatentUpscale"}


def test_a_walk_from_a_picture_is_told(tmp_path: Path) -> None:
    graph = default_graph()
    graph |= {"5": node("VAEEncode", pixels=["10", 0], vae=["4", 2]), "10": node("LoadImage", image="cat.png")}
    graph["3"]["inputs"]["denoise"] = 0.6
    found = comfyui(graph, tmp_path)
    assert not {"strength", "size"} & set(found.arguments)
    assert told(found) == {"seed", "denoise", "VAEEncode", "LoadImage"}


def test_an_advanced_sampler_says_what_part_it_walks(tmp_path: Path) -> None:
    graph = default_graph()
    inputs = graph["3"]["inputs"]
    del inputs["seed"], inputs["denoise"]
    whole = {
        "noise_seed": 9,
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }
    graph["3"] = node("KSamplerAdvanced", **inputs, **whole)
    found = comfyui(graph, tmp_path)
    assert found.arguments == {**DEFAULT, "seed": 9}
    assert told(found) == {"seed"}
    graph["3"]["inputs"] |= {"start_at_step": 3, "end_at_step": 15, "return_with_leftover_noise": "enable"}
    assert told(comfyui(graph, tmp_path)) == {"seed", "start_at_step", "end_at_step", "return_with_leftover_noise"}


def test_two_texts_of_sdxl_are_one_or_told(tmp_path: Path) -> None:
    graph = default_graph()
    sizes = {"width": 1024, "height": 1024, "clip": ["4", 1]}
    graph["6"] = node("CLIPTextEncodeSDXL", text_g="a cat", text_l="a cat", **sizes)
    assert told(comfyui(graph, tmp_path)) == {"seed", "CLIPTextEncodeSDXL"}
    graph["6"]["inputs"]["text_l"] = "fluffy"
    found = comfyui(graph, tmp_path)
    assert found.arguments["prompt"] == "a cat"
    assert told(found) == {"seed", "CLIPTextEncodeSDXL", "text_l"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "graph in the picture is damaged"),
        ("[" * 100_000, "graph in the picture is damaged"),
        ("[]", "not a list of nodes"),
        ('{"1": 3}', "not a list of nodes"),
        ("{}", "no KSampler to read, only nothing"),
        (json.dumps({"1": node("SaveImage", images=["2", 0]), "2": node("Flux")}), "only Flux, SaveImage"),
    ],
)
def test_a_graph_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_foreign(png(tmp_path / "a.png", prompt=text))


def test_no_graph_makes_the_reader_fail_otherwise(tmp_path: Path) -> None:
    """Inputs taken away, swapped, linked anywhere, in circles too."""
    random = Random(0)
    read = refused = 0
    for _ in range(400):
        graph = default_graph()
        graph["10"] = node("LoraLoader", lora_name="a", strength_model=0.5, strength_clip=0.5, model=["4", 0])
        graph["3"]["inputs"]["model"] = ["10", 0]
        for _ in range(random.randrange(1, 6)):
            one = random.choice(list(graph))
            inputs = graph[one]["inputs"]
            if not inputs:
                continue
            name = random.choice(list(inputs))
            junk = [
                [random.choice(list(graph)), 0],
                ["99", 0],
                None,
                "x",
                -3,
                2.5,
                True,
                [],
                {},
                float("nan"),
                [1, 2, 3],
            ]
            if random.random() < 0.2:
                del inputs[name]
            else:
                inputs[name] = random.choice(junk)
        try:
            found = comfyui(graph, tmp_path)
        except DataError:
            refused += 1
            continue
        read += 1
        Provenance("generate", "m", "f", found.arguments)  # every argument is one that a picture can carry
    assert read > 100
    assert refused > 5


def test_a_picture_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not say how it was made"):
        read_foreign(png(tmp_path / "a.png", Software="GIMP"))
    with pytest.raises(DataError, match="is missing"):
        read_foreign(tmp_path / "b.png")
    with pytest.raises(DataError, match="is a folder"):
        read_foreign(tmp_path)
    (tmp_path / "c.png").write_bytes(b"words")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_foreign(tmp_path / "c.png")


def test_our_own_pictures_say_more_and_are_not_read_as_theirs(tmp_path: Path) -> None:
    made = Provenance("generate", "m", "f" * 32, {"prompt": "a cat", "steps": 5, "sampler": "Euler", "size": "8x8"})
    save_picture(np.zeros((8, 8, 3), np.uint8), tmp_path / "a.png", made)
    with pytest.raises(DataError, match="was written by neblina"):
        read_foreign(tmp_path / "a.png")
    found = a1111(describe(made), tmp_path)  # but their readers understand the lines that are meant for them
    assert found.arguments["prompt"] == "a cat"
    assert found.arguments["steps"] == 5
    assert found.arguments["size"] == "8x8"


def test_every_name_that_is_mapped_to_is_there() -> None:
    assert set(SAMPLERS.values()) <= set(samplers)
    assert set(GRIDS.values()) <= set(grids)
