"""LoRA fine-tuning on prompt/response pairs."""
