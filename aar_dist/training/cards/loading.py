"""How to use a stored model."""

from aar_dist.store.registry import SCHEME


def loading_part(name: str, *, predicts: bool) -> list[str]:
    """Markdown. The store's place is the reader's to fill in: a version may be copied to another one."""
    reference = f"{SCHEME}{name}@latest"
    command = f"aar-dist predict {reference} RECORDINGS OUT --store STORE" if predicts else (
        f"deepspeed launch/finetune.py --config configs/finetune/quickstart.yaml --init_from {reference} "
        "--store.path STORE --data.shards SHARDS --out DIR"
    )  # fmt: skip
    return [
        "", "## Loading", "",
        "STORE is where this card was found: a folder, `s3://…` or `https://…`.", "",
        "```python",
        "from aar_dist.store.registry import resolve",
        f'checkpoint = resolve("{reference}", "STORE")  # verified',
        "model = checkpoint.objective()  # torch.nn.Module, fp32, eval; .backbone is the encoder",
        "```", "",
        "```",
        command,
        f"aar-dist embed {reference} SHARDS embeddings.parquet --store STORE",
        f"aar-dist store pull {name} --store STORE",
        "```",
    ]  # fmt: skip
