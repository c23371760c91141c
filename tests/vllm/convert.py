"""Turn a GGUF file into the Hugging Face checkpoint that vLLM loads. Runs in vLLM's own environment, not in Swell's."""

import sys
from pathlib import Path


def main(gguf_file: Path, target: Path) -> None:
    """Write the weights (float32 safetensors), the configuration and the tokenizer of `gguf_file` under `target`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(gguf_file.parent), gguf_file.name
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype="float32", quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
