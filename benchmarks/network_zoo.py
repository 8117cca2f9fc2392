"""Networks of other packages, small variants on small inputs: what `networks.py` tries to prune."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, tuple[Any, ...]]
SIDE = 64

# package -> family -> names
NAMES: dict[str, dict[str, str]] = {
    "pytorchcv": {
        "ResNet": "resnet20_cifar10 preresnet20_cifar10 resneta10 seresnet20_cifar10 ibn_resnet50",
        "DenseNet": "densenet40_k12_cifar10 peleenet",
        "NIN": "nin_cifar10",
        "Pyramid, RoR, RiR": "ror3_56_cifar10 rir_cifar10",
        "DIANet": "diaresnet20_cifar10",
        "Shake-Shake": "shakeshakeresnet20_2x16d_cifar10",
        "SqueezeNet": "squeezenet_v1_1 squeezeresnet_v1_1",
        "ShuffleNet": "shufflenet_g1_wd4 shufflenet_g3_wd4 shufflenetv2_wd2 shufflenetv2b_wd2 menet108_8x1_g3",
        "MobileNet": "mobilenet_wd4 fdmobilenet_wd4 mobilenetv2_wd4 mobilenetv3_small_wd7d20 igcv3_wd4",
        "NAS": "mnasnet_b1 proxylessnas_cpu",
        "CBAM, BAM": "cbam_resnet18 bam_resnet18",
        "HarDNet": "hardnet39ds",
        "DiCENet": "dicenet_wd5",
        "ESPNetv2": "espnetv2_wd2",
        "Darknet": "darknet_tiny",
        "Inception": "bninception",
        "Light segmentation": "fastscnn_cityscapes cgnet_cityscapes dabnet_cityscapes",
    },
    "timm": {
        "ResNet": "resnet10t resnet26d skresnet18 resnest14d seresnext26ts ecaresnet26t",
        "Res2Net": "res2net50_48w_2s",
        "RepVGG": "repvgg_a0",
        "MobileNet": "mobilenetv2_050 mobilenetv3_small_050 lcnet_035 mobileone_s0",
        "EfficientNet": "efficientnet_lite0 tinynet_e tf_efficientnetv2_b0",
        "GhostNet": "ghostnet_050 repghostnet_050",
        "RegNet": "regnetx_002 regnety_002 nf_regnet_b0",
        "ReXNet": "rexnetr_100",
        "DLA": "dla34",
        "DPN": "dpn48b",
        "VoVNet": "ese_vovnet19b_dw",
        "CSPNet": "cs3darknet_s",
        "HRNet": "hrnet_w18_small",
        "ConvNeXt": "convnext_atto convnextv2_atto inception_next_atto",
        "ConvMixer": "convmixer_768_32",
        "FasterNet": "fasternet_t0",
        "StarNet": "starnet_s1",
        "MetaFormer": "poolformer_s12",
        "Mobile transformers": "mobilevit_xxs mobilevitv2_050 edgenext_xx_small repvit_m0_9 efficientformer_l1",
        "ViT": "vit_tiny_patch16_224 deit_tiny_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224",
        "Swin": "swin_tiny_patch4_window7_224",
        "PVT": "pvt_v2_b0",
        "LeViT": "levit_128s",
        "MLP": "mixer_s32_224 gmlp_ti16_224 resmlp_12_224",
        "Recurrent": "sequencer2d_s",
        "NFNet": "nf_resnet26",
        "Xception": "xception41",
        "Large": "resnet50 convnext_tiny vit_base_patch16_224 efficientnet_b0",
    },
    "torchvision": {
        "AlexNet": "alexnet",
        "Inception": "googlenet",
        "ShuffleNet": "shufflenet_v2_x0_5",
        "SqueezeNet": "squeezenet1_1",
        "MobileNet": "mobilenet_v2 mobilenet_v3_small",
        "NAS": "mnasnet0_5",
        "EfficientNet": "efficientnet_b0",
        "ViT": "vit",
        "Swin": "swin",
        "Video": "r3d_18",
        "Light segmentation": "lraspp_mobilenet_v3_large",
    },
    "transformers": {
        "BERT": "bert distilbert electra",
        "GPT": "gpt2",
        "Llama": "llama",
        "ViT": "vit",
        "Swin": "swin",
        "ConvNeXt": "convnext",
        "SegFormer": "segformer",
        "ResNet": "resnet",
    },
    "monai": {
        "U-Net": "UNet BasicUNet AttentionUnet DynUNet",
        "SegResNet": "SegResNet",
        "V-Net": "VNet",
        "DenseNet": "DenseNet",
        "HighResNet": "HighResNet",
        "ViT": "UNETR",
    },
    "smp": {
        "U-Net": "Unet UnetPlusPlus MAnet",
        "FPN": "FPN PAN",
        "LinkNet": "Linknet",
        "PSPNet": "PSPNet",
        "DeepLab": "DeepLabV3Plus",
        "SegFormer": "Segformer",
    },
}


def catalogue() -> dict[str, str]:
    """Package and name -> family, in a fixed order."""
    return {
        f"{package}:{name}": family
        for package, families in NAMES.items()
        for family, names in families.items()
        for name in names.split()
    }


def images(*shape: int) -> tuple[torch.Tensor, ...]:
    """One example of noise."""
    return (torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)),)


def prepare() -> None:
    """Import all packages once: torchvision's Python half runs beside a torch without its compiled operations."""
    warnings.simplefilter("ignore")
    library = torch.library.Library("torchvision", "DEF")
    kinds = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
    with suppress(RuntimeError):  # the compiled operations are there
        for name in ("nms", "qnms", *kinds, *(f"_{kind}_backward" for kind in kinds)):
            library.define(f"{name}(Tensor a) -> Tensor")
    prepare.library = library  # type: ignore[attr-defined]  # it lives as long as what it defines
    for package in ("torchvision", "timm", "transformers", "monai.networks.nets", "segmentation_models_pytorch"):
        importlib.import_module(package)
    importlib.import_module("pytorchcv.model_provider")


def make(name: str) -> Made:
    """A network with random weights, and its arguments."""
    torch.manual_seed(0)
    package, _, kind = name.partition(":")
    return _MAKERS[package](kind)


def _pytorchcv(kind: str) -> Made:
    provider = importlib.import_module("pytorchcv.model_provider")
    size: Any = (3, 32, 32) if "cifar" in kind else (3, SIDE, SIDE)
    options: dict[str, Any] = {}
    if "cityscapes" in kind:
        size = (3, 96, 96)
        options = {"in_size": (96, 96)}
    elif "cifar" not in kind:
        size = (3, 224, 224)  # its last pooling is 7 x 7 whatever the input
        options = {"num_classes": 10}
    try:
        net = provider.get_model(kind, pretrained=False, **options)
    except TypeError:
        net = provider.get_model(kind, pretrained=False)
    return net, images(*size)


def _timm(kind: str) -> Made:
    create = importlib.import_module("timm").create_model
    try:
        net = create(kind, num_classes=10, img_size=SIDE)
    except TypeError:
        net = create(kind, num_classes=10)
    return net, images(3, SIDE, SIDE)


def _torchvision(kind: str) -> Made:
    models = importlib.import_module("torchvision.models")
    if kind == "vit":
        net = models.VisionTransformer(
            image_size=SIDE, patch_size=8, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=256, num_classes=10
        )
    elif kind == "swin":
        net = models.SwinTransformer(
            patch_size=[4, 4], embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=10
        )
    elif kind == "r3d_18":
        return importlib.import_module("torchvision.models.video").r3d_18(), images(3, 4, 32, 32)
    elif kind.startswith("lraspp"):
        net = importlib.import_module("torchvision.models.segmentation").lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None
        )
    else:
        options = {"init_weights": False} if kind == "googlenet" else {}
        net = getattr(models, kind)(num_classes=10, **options)
    return net, images(3, SIDE, SIDE)


def _transformers(kind: str) -> Made:
    hf = importlib.import_module("transformers")
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    words = {**small, "vocab_size": 200, "max_position_embeddings": 64}
    tokens = (torch.randint(0, 200, (1, 24), generator=torch.Generator().manual_seed(0)),)
    picture = images(3, SIDE, SIDE)
    first = functools.partial(_First)
    if kind == "bert":
        return first(hf.BertForSequenceClassification(hf.BertConfig(**words))), tokens
    if kind == "electra":
        return first(hf.ElectraForSequenceClassification(hf.ElectraConfig(**words, embedding_size=32))), tokens
    if kind == "distilbert":
        config = hf.DistilBertConfig(vocab_size=200, dim=64, n_layers=2, n_heads=2, hidden_dim=128)
        return first(hf.DistilBertForSequenceClassification(config)), tokens
    if kind == "gpt2":
        config = hf.GPT2Config(vocab_size=200, n_embd=64, n_layer=2, n_head=2, n_positions=64, use_cache=False)
        return first(hf.GPT2LMHeadModel(config)), tokens
    if kind == "llama":
        config = hf.LlamaConfig(**words, num_key_value_heads=2, use_cache=False)
        return first(hf.LlamaForCausalLM(config)), tokens
    if kind == "vit":
        return first(hf.ViTForImageClassification(hf.ViTConfig(**small, image_size=SIDE, patch_size=8))), picture
    if kind == "swin":
        config = hf.SwinConfig(image_size=SIDE, embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4)
        return first(hf.SwinForImageClassification(config)), picture
    if kind == "convnext":
        config = hf.ConvNextConfig(hidden_sizes=[24, 32, 48, 64], depths=[1, 1, 2, 1])
        return first(hf.ConvNextForImageClassification(config)), picture
    if kind == "resnet":
        config = hf.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1])
        return first(hf.ResNetForImageClassification(config)), picture
    config = hf.SegformerConfig(
        hidden_sizes=[16, 32, 48, 64], depths=[1] * 4, decoder_hidden_size=32, num_attention_heads=[1, 2, 3, 4]
    )
    return first(hf.SegformerForSemanticSegmentation(config)), picture


class _First(nn.Module):
    """A network of transformers that returns its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.net(x, return_dict=False)[0]  # type: ignore[no-any-return]


def _monai(kind: str) -> Made:
    nets = importlib.import_module("monai.networks.nets")
    two = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    options: dict[str, dict[str, Any]] = {
        "UNet": {**two, "channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 2},
        "BasicUNet": {**two, "features": (8, 8, 16, 32, 32, 8)},
        "AttentionUnet": {**two, "channels": (8, 16, 32), "strides": (2, 2)},
        "DynUNet": {**two, "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2],
                    "filters": [8, 16, 32]},
        "SegResNet": {**two, "init_filters": 8},
        "VNet": {**two, "dropout_prob_down": 0.1, "dropout_prob_up": (0.1, 0.1)},
        "DenseNet": {**two, "init_features": 16, "growth_rate": 8, "block_config": (2, 2)},
        "HighResNet": two,
        "UNETR": {**two, "img_size": (64, 64), "feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
    }  # fmt: skip
    return getattr(nets, kind)(**options[kind]), images(1, 64, 64)


def _smp(kind: str) -> Made:
    package = importlib.import_module("segmentation_models_pytorch")
    encoder = "mit_b0" if kind == "Segformer" else "resnet18"
    return getattr(package, kind)(encoder, encoder_weights=None, classes=2), images(3, 64, 64)


_MAKERS: dict[str, Callable[[str], Made]] = {
    "pytorchcv": _pytorchcv,
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "monai": _monai,
    "smp": _smp,
}
