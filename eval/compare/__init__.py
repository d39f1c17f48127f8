"""Studies that pretrain, fine-tune and compare several maskings: `python -m eval.compare`."""
