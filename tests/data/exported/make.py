"""Exports the models of this folder: real architectures, random weights, by the exporter of the torch that runs it.

`README.md` tells the two environments. Each writes its own files: `ts-*.onnx` by the exporter over TorchScript
(torch 1.12), `dynamo-*.onnx` by the one over `torch.export` (torch 2.13).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

FOLDER = Path(__file__).parent
TEXT = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}
IMAGE = {"image": {0: "batch"}}
SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


class Only(nn.Module):
    """A model of `transformers` that is called with these inputs and gives these outputs."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> Any:
        given = dict(zip(self.inputs, (first, second), strict=False))
        answer = self.model(**given)
        return tuple(answer[name] for name in self.outputs)


def text(model: nn.Module, *outputs: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], dict[str, dict[int, str]]]:
    ids, mask = torch.randint(3, 60, (2, 9)), torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    return Only(model, ("input_ids", "attention_mask"), outputs), (ids, mask), TEXT


def image(model: nn.Module, *outputs: str, size: int = 32) -> tuple[nn.Module, tuple[torch.Tensor, ...], Any]:
    whole = Only(model, ("pixel_values",), outputs) if outputs else model
    return whole, (torch.randn(2, 3, size, size),), IMAGE


def bert() -> Any:
    return text(transformers.BertModel(transformers.BertConfig(**SMALL)), "last_hidden_state", "pooler_output")


def distilbert() -> Any:
    config = transformers.DistilBertConfig(
        vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40
    )
    return text(transformers.DistilBertForSequenceClassification(config), "logits")


def roberta() -> Any:
    config = transformers.RobertaConfig(**{**SMALL, "max_position_embeddings": 42}, pad_token_id=1)
    return text(transformers.RobertaForTokenClassification(config), "logits")


def electra() -> Any:
    return text(transformers.ElectraModel(transformers.ElectraConfig(**SMALL, embedding_size=16)), "last_hidden_state")


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=60, n_positions=40, n_embd=32, n_layer=2, n_head=4, use_cache=False)
    return text(transformers.GPT2LMHeadModel(config), "logits")


def llama() -> Any:
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, use_cache=False)
    return text(transformers.LlamaForCausalLM(config), "logits")


def vit() -> Any:
    small = {key: SMALL[key] for key in SMALL if key not in ("vocab_size", "max_position_embeddings")}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=8)
    return image(transformers.ViTModel(config), "last_hidden_state")


def wav2vec2() -> Any:
    config = transformers.Wav2Vec2Config(
        **{**SMALL, "vocab_size": 30},
        conv_dim=(16, 16, 16),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 2),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    model = Only(transformers.Wav2Vec2ForCTC(config), ("input_values",), ("logits",))
    return model, (torch.randn(2, 900),), {"signal": {0: "batch", 1: "samples"}}


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64, num_mel_bins=16,
        max_source_positions=50, decoder_layers=1, decoder_ffn_dim=32,
        pad_token_id=1, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    encoder = transformers.WhisperModel(config).encoder
    return Only(encoder, ("input_features",), ("last_hidden_state",)), (torch.randn(2, 16, 100),), {"mel": {0: "batch"}}


def resnet() -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=10
    )
    return image(transformers.ResNetForImageClassification(config), "logits")


def convnext() -> Any:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=10)
    return image(transformers.ConvNextForImageClassification(config), "logits")


def mobilenet_v2() -> Any:
    config = transformers.MobileNetV2Config(
        image_size=32, depth_multiplier=0.1, finegrained_output=True, tf_padding=False, num_labels=10
    )
    return image(transformers.MobileNetV2ForImageClassification(config), "logits", size=64)


def mobilenet_v3() -> Any:
    from torchvision.models import mobilenetv3

    row = partial(mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    rows = [
        row(8, 3, 8, 8, True, "RE", 2, 1),
        row(8, 3, 24, 12, False, "RE", 2, 1),
        row(12, 5, 32, 12, True, "HS", 1, 1),
        row(12, 5, 48, 16, True, "HS", 2, 1),
    ]
    return image(mobilenetv3.MobileNetV3(rows, last_channel=48, num_classes=10), size=64)


def shufflenet() -> Any:
    from torchvision.models import ShuffleNetV2

    return image(ShuffleNetV2([2, 2, 2], [8, 16, 32, 48, 64], num_classes=10), size=64)


def densenet() -> Any:
    from torchvision.models import DenseNet

    return image(DenseNet(4, (2, 2), 8, num_classes=10))


#: By file: what is exported, and the version of the operator set.
TORCHSCRIPT: dict[str, tuple[Callable[[], Any], int]] = {
    "ts-bert-opset11": (bert, 11),
    "ts-bert": (bert, 16),
    "ts-distilbert": (distilbert, 14),
    "ts-roberta": (roberta, 13),
    "ts-electra": (electra, 12),
    "ts-gpt2": (gpt2, 13),
    "ts-vit": (vit, 14),
    "ts-wav2vec2": (wav2vec2, 14),
    "ts-whisper-encoder": (whisper, 14),
    "ts-convnext": (convnext, 14),
    "ts-resnet": (resnet, 11),
    "ts-mobilenet-v3": (mobilenet_v3, 16),
    "ts-shufflenet": (shufflenet, 13),
    "ts-densenet": (densenet, 9),
}
DYNAMO: dict[str, tuple[Callable[[], Any], int]] = {
    "dynamo-bert": (bert, 18),
    "dynamo-distilbert": (distilbert, 18),
    "dynamo-roberta": (roberta, 20),
    "dynamo-gpt2": (gpt2, 18),
    "dynamo-llama": (llama, 20),
    "dynamo-vit": (vit, 20),
    "dynamo-wav2vec2": (wav2vec2, 18),
    "dynamo-whisper-encoder": (whisper, 20),
    "dynamo-resnet": (resnet, 18),
    "dynamo-mobilenet-v2": (mobilenet_v2, 18),
    "dynamo-convnext": (convnext, 18),
}


def randomise(model: nn.Module) -> None:
    """Weights and running statistics of the size that trained ones have: as they are made most are 0, 1 or 0.02."""
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or "inv_freq" in name or "relative_position" in name:
                continue
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.dim() < 2 and name.endswith(("weight", "lambda", "_g")):
                value.copy_(1 + 0.1 * torch.randn_like(value))
            elif value.dim() < 2:
                value.copy_(0.1 * torch.randn_like(value))
            elif "embed" in name and value.dim() == 2:
                value.copy_(torch.randn_like(value))
            else:
                value.copy_(torch.randn_like(value) / value[0].numel() ** 0.5)


def export(name: str, make: Callable[[], Any], opset: int, dynamo: bool) -> None:
    torch.manual_seed(len(name))
    model, given, axes = make()
    model.eval()
    randomise(model)
    outputs = list(getattr(model, "outputs", ("logits",)))
    path = FOLDER / f"{name}.onnx"
    inputs: dict[str, Any] = {"opset_version": opset, "input_names": list(axes), "output_names": outputs}
    if dynamo:
        shapes = [dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for dims in axes.values()]
        arguments = tuple(shapes) if not isinstance(model, Only) else (*shapes, *[None] * (2 - len(shapes)))
        torch.onnx.export(
            model, given, path, dynamo=True, dynamic_shapes=arguments[: len(given)], external_data=False,
            verbose=False, **inputs,
        )  # fmt: skip
        slim(path, axes)
    else:
        torch.onnx.export(model, given, str(path), dynamic_axes=axes, **inputs)
    sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes\n")


def slim(path: Path, axes: dict[str, dict[int, str]]) -> None:
    """Without the exporter's notes of where in the source each node came from, which hold paths and are long.

    Dimensions, which the exporter counts, get the names of the inputs' axes.
    """
    import onnx

    model = onnx.load(path)
    for entry in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    names = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        names |= {dims[place].dim_param: name for place, name in axes[value.name].items()}
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    onnx.save(model, path)


def main(chosen: list[str]) -> None:
    """Exports the models whose names are given, or all of this torch's."""
    dynamo = torch.__version__.startswith("2.")
    known = DYNAMO if dynamo else TORCHSCRIPT
    for name in chosen or known:
        export(name, *known[name], dynamo)


if __name__ == "__main__":
    main(sys.argv[1:])
