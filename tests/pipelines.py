"""Small random pipelines of every family, as diffusers builds them: what a hub holds, at a millionth of the size."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LDMPipeline,
    LDMTextToImagePipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from oracle import bert_tokenizer, clip, loud
from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessorPil

SD_BETAS: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD: dict[str, Any] = {**SD_BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def unet(**changes: Any) -> UNet2DConditionModel:
    """A U-Net that reads a text 16 wide, of two levels for latents of 8x8."""
    torch.manual_seed(1)
    settings = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 8,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**{**settings, **changes}).eval()


def autoencoder(levels: int = 2, **changes: Any) -> AutoencoderKL:
    """A codec whose latent cells are 2^(levels − 1) pixels wide."""
    torch.manual_seed(2)
    settings = {
        "block_out_channels": (8, 16, 16, 16)[:levels],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 8 * 2 ** (levels - 1),
    }
    return AutoencoderKL(**{**settings, **changes}).eval()


def sd1(place: Path, kind: type = StableDiffusionPipeline, scheduler: Any = None, **changes: Any) -> Any:
    """Stable Diffusion 1: eps, one CLIP encoder."""
    text, tokenizer = clip(place / "parts")
    return kind(
        vae=autoencoder(),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet(**changes),
        scheduler=scheduler or PNDMScheduler(**_PNDM),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


_PNDM = {**SD_BETAS, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}


def sd2(place: Path, prediction: str = "v_prediction", **changes: Any) -> Any:
    """Stable Diffusion 2: v, linear projections, heads per level, OpenCLIP's pad and activation."""
    text, tokenizer = clip(place / "parts", pad="!", hidden_act="gelu", num_attention_heads=4)
    net = unet(use_linear_projection=True, attention_head_dim=(2, 4), **changes)
    scheduler = DDIMScheduler(**SD, prediction_type=prediction)
    return StableDiffusionPipeline(
        autoencoder(), text, tokenizer, net, scheduler, None, None, requires_safety_checker=False
    )


def sdxl(place: Path, kind: type = StableDiffusionXLPipeline, **changes: Any) -> Any:
    """SDXL: two encoders, a pooled text, sizes."""
    first, tokenizer = clip(place / "1", seed=1, hidden_size=24, num_attention_heads=3)
    second, tokenizer_2 = clip(place / "2", seed=2, projected=True, pad="!", hidden_act="gelu", projection_dim=20)
    net = unet(
        cross_attention_dim=40,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 8 * 6,
        **changes,
    )
    scheduler = EulerDiscreteScheduler(**SD_BETAS, timestep_spacing="leading", steps_offset=1)
    return kind(
        vae=autoencoder(scaling_factor=0.13025, force_upcast=True),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=net,
        scheduler=scheduler,
        add_watermarker=False,
    )


def refiner(place: Path) -> Any:
    """SDXL's refiner: the second encoder alone, aesthetic scores."""
    second, tokenizer = clip(place / "2", projected=True, pad="!", hidden_act="gelu", projection_dim=16)
    net = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 8 * 5,
    )
    return StableDiffusionXLImg2ImgPipeline(
        autoencoder(scaling_factor=0.13025),
        None,
        second,
        None,
        tokenizer,
        net,
        EulerDiscreteScheduler(**SD_BETAS, timestep_spacing="leading", steps_offset=1),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def ldm(place: Path, codec: Any = None) -> Any:
    """The original latent-diffusion text-to-image: a BERT-like encoder."""
    tokenizer = bert_tokenizer(place / "tokenizer", model_max_length=77)
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_ffn_dim": 24, "encoder_attention_heads": 3, "head_dim": 4}
    bert = loud(lambda: LDMBertModel(LDMBertConfig(vocab_size=len(tokenizer), **sizes)), 0)
    return LDMTextToImagePipeline(codec or autoencoder(), bert, tokenizer, unet(), DDIMScheduler(**SD))


def vq(**changes: Any) -> VQModel:
    """A codec that knows 32 vectors, as large as its latents, so that their scale matters."""
    torch.manual_seed(3)
    codec = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        **{"num_vq_embeddings": 32, **changes},
    ).eval()
    torch.nn.init.normal_(codec.quantize.embedding.weight)
    return codec


def tiny() -> AutoencoderTiny:
    """TAESD's shape, three levels narrower."""
    torch.manual_seed(4)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()


def sd_tiny(place: Path) -> Any:
    """Stable Diffusion 1 with TAESD for a codec."""
    pipeline = sd1(place)
    pipeline.register_modules(vae=tiny())
    return pipeline


def inpainting(place: Path) -> Any:
    """Stable Diffusion's inpainting checkpoint: 9 channels."""
    return sd1(place, StableDiffusionInpaintPipeline, in_channels=9)


def sdxl_inpainting(place: Path) -> Any:
    return sdxl(place, StableDiffusionXLInpaintPipeline, in_channels=9)


def upscaler(place: Path) -> Any:
    """The x4 upscaler: 7 channels, levels of noise as labels."""
    text, tokenizer = clip(place / "parts", pad="!", hidden_act="gelu", num_attention_heads=4)
    return StableDiffusionUpscalePipeline(
        autoencoder(levels=3, scaling_factor=0.08333),
        text,
        tokenizer,
        unet(in_channels=7, num_class_embeds=1000, use_linear_projection=True, only_cross_attention=(True, False)),
        DDPMScheduler(**SD_BETAS),
        DDIMScheduler(**SD, prediction_type="v_prediction"),
        max_noise_level=350,
    )


def depth_to_image(place: Path) -> Any:
    """Stable Diffusion 2's depth model: a fifth channel, and the network that makes it."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    necks = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [4] * 4, "fusion_hidden_size": 4}
    estimator = DPTForDepthEstimation(DPTConfig(**sizes, **necks, image_size=32, patch_size=16))
    text, tokenizer = clip(place / "parts", pad="!", hidden_act="gelu", num_attention_heads=4)
    scheduler = DDIMScheduler(**SD)
    return StableDiffusionDepth2ImgPipeline(
        autoencoder(), text, tokenizer, unet(in_channels=5), scheduler, estimator, DPTImageProcessorPil()
    )


def dit(place: Path) -> Any:
    """A diffusion transformer of 10 classes that learned its variance."""
    torch.manual_seed(5)
    net = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=1000,
    ).eval()
    labels = {number: f"class {number}" for number in range(1000)}
    return DiTPipeline(net, autoencoder(), DDIMScheduler(clip_sample=False), id2label=labels)


def text_dit(place: Path, **changes: Any) -> Path:
    """A model folder of parts that diffusers and transformers wrote: a transformer that reads one CLIP encoder."""
    text, tokenizer = clip(place / "parts")
    settings = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "out_channels": 4,
        "num_layers": 2,
        "cross_attention_dim": 16,
        "caption_channels": 16,
        "sample_size": 8,
    }
    net = loud(lambda: PixArtTransformer2DModel(**{**settings, **changes}), 8)
    PixArtSigmaPipeline(tokenizer, text, autoencoder(), net, DDIMScheduler(**SD)).save_pretrained(place / "model")
    index = place / "model" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "TextDiTPipeline"}))
    return place / "model"


def unconditional_ldm(place: Path) -> Any:
    """Latent diffusion of pictures without a condition, over a VQ codec."""
    torch.manual_seed(6)
    net = UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()
    return LDMPipeline(vq(), net, DDIMScheduler(**SD))


def pictures(place: Path) -> Any:
    """DDPM on pictures themselves."""
    torch.manual_seed(7)
    net = UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()
    return DDPMPipeline(net, DDPMScheduler())


def of_shape(place: Path, **changes: Any) -> Any:
    """Stable Diffusion 1 of another shape."""
    return sd1(place, scheduler=DPMSolverMultistepScheduler(**SD_BETAS), **changes)


FAMILIES: dict[str, Any] = {
    "sd1": sd1,
    "sd1-image-to-image": lambda place: sd1(place, StableDiffusionImg2ImgPipeline),
    "sd2-v": sd2,
    "sd2-eps": lambda place: sd2(place, "epsilon"),
    "sd-taesd": sd_tiny,
    "sdxl": sdxl,
    "ldm-text": ldm,
    "ldm-text-vq": lambda place: ldm(place, vq()),
    "one-level": lambda place: of_shape(
        place,
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    ),
    "unequal-blocks": lambda place: of_shape(place, layers_per_block=(2, 1), block_out_channels=(8, 24)),
    "other-heads": lambda place: of_shape(place, attention_head_dim=(8, 2), transformer_layers_per_block=2),
}


def vq_diffusion(place: Path, *, learned: bool = True, steps: int = 100) -> Any:
    """VQ-Diffusion: tokens of 24 codes on a grid of 4x4, one CLIP encoder, and a text that says nothing."""
    from diffusers import Transformer2DModel, VQDiffusionPipeline, VQDiffusionScheduler
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings,
    )

    text, tokenizer = clip(place / "parts")
    torch.manual_seed(3)
    transformer = Transformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        cross_attention_dim=16,
        attention_bias=True,
        sample_size=4,
        num_vector_embeds=25,
        activation_fn="geglu-approximate",
        num_embeds_ada_norm=steps,
    ).eval()
    for parameter in transformer.parameters():  # as they are made, they say nearly the same of all tokens
        torch.nn.init.normal_(parameter, std=0.3)
    null = LearnedClassifierFreeSamplingEmbeddings(learned, 16, tokenizer.model_max_length)
    if learned:
        torch.nn.init.normal_(null.embeddings)
    return VQDiffusionPipeline(
        vqvae=vq(num_vq_embeddings=24, vq_embed_dim=4),
        text_encoder=text,
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=VQDiffusionScheduler(num_vec_classes=25, num_train_timesteps=steps),
        learned_classifier_free_sampling_embeddings=null,
    )
