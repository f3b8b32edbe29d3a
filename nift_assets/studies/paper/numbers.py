"""The numbers of the paper's tables (arXiv 2409.00096), copied as they are printed, rows in the paper's order.

Models, training sets and sources are called as the rows of the study `paper` are; a number is None where the paper
prints a dash or only a picture.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

ModuleKind = Literal["none", "lora", "lora-base"]


class Table1Row(NamedTuple):
    """A row of Table 1: the ID, the model and what it was trained on, MT-Bench and the leaderboard's average."""

    id: int
    backbone: str
    module: ModuleKind
    training_set: str | None
    mt_bench: float
    leaderboard: float | None


TABLE_1 = (
    Table1Row(1, "llama-2-7b", "none", None, 3.88, 50.97),
    Table1Row(2, "llama-2-7b-chat", "none", None, 6.27, 50.74),
    Table1Row(3, "llama-2-7b", "lora", "original-80k", 3.82, 50.65),
    Table1Row(4, "llama-2-7b", "lora", "llama-2-7b-chat-80k", 4.59, 49.49),
    Table1Row(5, "llama-2-7b", "lora", "gpt-3.5-turbo-0125-80k", 4.93, 50.64),
    Table1Row(6, "llama-2-7b-chat", "lora-base", "gpt-3.5-turbo-0125-80k", 6.60, 50.27),
    Table1Row(7, "llama-2-7b-chat", "lora", "gpt-3.5-turbo-0125-80k", 6.33, 51.75),
    Table1Row(8, "llama-2-7b", "lora", "gpt-4-0125-preview-80k", 5.12, 52.71),
    Table1Row(9, "llama-2-7b-chat", "lora-base", "gpt-4-0125-preview-80k", 6.71, 49.86),
    Table1Row(10, "llama-2-7b-chat", "lora", "gpt-4-0125-preview-80k", 6.57, 52.98),
    Table1Row(11, "mistral-7b-v0.1", "none", None, 3.73, 60.97),
    Table1Row(12, "mistral-7b-v0.1", "lora", "original-80k", 3.57, 61.01),
    Table1Row(13, "mistral-7b-v0.1", "lora", "gpt-4-0125-preview-80k", 7.29, 62.00),
    Table1Row(14, "mistral-7b-instruct-v0.1", "none", None, 6.84, 54.96),
    Table1Row(15, "mistral-7b-instruct-v0.1", "lora-base", "gpt-4-0125-preview-80k", 6.54, 54.78),
    Table1Row(16, "mistral-7b-instruct-v0.1", "lora", "gpt-4-0125-preview-80k", 7.02, 57.27),
    Table1Row(17, "mistral-7b-instruct-v0.2", "none", None, 7.6, 65.71),
    Table1Row(18, "mistral-7b-instruct-v0.2", "lora-base", "gpt-4-0125-preview-80k", 7.46, 60.82),
    Table1Row(19, "mistral-7b-instruct-v0.2", "lora", "gpt-4-0125-preview-80k", 7.74, 62.51),
    Table1Row(20, "llama-3-8b", "none", None, 5.5, 62.62),
    Table1Row(21, "llama-3-8b-instruct", "none", None, 7.86, 66.87),
    Table1Row(22, "llama-3-8b", "lora", "gpt-4-0125-preview-80k", 7.03, 63.67),
    Table1Row(23, "llama-3-8b-instruct", "lora", "gpt-4-0125-preview-80k", 7.97, 64.88),
    Table1Row(24, "llama-3-8b-instruct", "lora-base", "gpt-4-0125-preview-80k", 8.21, 60.10),
    Table1Row(25, "llama-3-70b", "none", None, 2.71, 73.96),
    Table1Row(26, "llama-3-70b-instruct", "none", None, 8.63, 77.88),
    Table1Row(27, "llama-3-70b", "lora", "gpt-4-0125-preview-80k", 8.18, None),
    Table1Row(28, "llama-3-70b-instruct", "lora", "gpt-4-0125-preview-80k", 9.03, None),
    Table1Row(29, "llama-3-70b-instruct", "lora-base", "gpt-4-0125-preview-80k", 8.71, None),
)

# MT-Bench after training on 10,000 completions of Claude 3 Haiku, Sonnet and Opus.
TABLE_2_SETS = ("claude-3-haiku-10k", "claude-3-sonnet-10k", "claude-3-opus-10k")
TABLE_2: tuple[tuple[str, ModuleKind, tuple[float, float, float]], ...] = (
    ("mistral-7b-v0.1", "lora", (6.87, 6.45, 6.63)),
    ("llama-3-8b", "lora", (5.51, 6.16, 5.56)),
    ("llama-3-8b-instruct", "lora", (7.62, 7.73, 7.91)),
    ("llama-3-8b-instruct", "lora-base", (8.06, 8.15, 8.03)),
    ("llama-3-70b", "lora", (7.38, 7.50, 7.65)),
    ("llama-3-70b-instruct", "lora", (8.99, 8.91, 8.80)),
    ("llama-3-70b-instruct", "lora-base", (8.79, 8.90, 9.00)),
)

# MT-Bench of Mistral-7B-v0.1 on each of these sets.
TABLE_3 = (
    ("alpaca", 5.67),
    ("gpt-4-alpaca", 6.56),
    ("gpt-4-0125-preview-10k", 6.75),
    ("claude-3-haiku-10k", 6.87),
)

# Win rates; those of the Instruct models are the benchmark's leaderboard's.
TABLE_5_QUOTED = (
    ("mistral-7b-instruct-v0.2", 12.57),
    ("llama-3-8b-instruct", 20.6),
    ("llama-3-70b-instruct", 46.6),
)
TABLE_5: tuple[tuple[str, ModuleKind, float], ...] = (
    ("mistral-7b-v0.1", "lora", 10.0),
    ("llama-3-8b", "lora", 9.43),
    ("llama-3-8b-instruct", "lora-base", 29.05),
    ("llama-3-8b-instruct", "lora", 24.36),
    ("llama-3-70b", "lora", 41.3),
    ("llama-3-70b-instruct", "lora-base", 49.6),
    ("llama-3-70b-instruct", "lora", 57.0),
)

# Win rates of Llama-3-8B on each of these sets.
TABLE_6 = (
    ("gpt-4-0125-preview-80k", 9.43),
    ("gpt-4o-mini-2024-07-18-80k", 12.6),
    ("gpt-4o-mini-2024-07-18-300k", 33.28),
)

# Arena-Hard and IFEval. The two fully fine-tuned models in the middle are others'.
TABLE_7_OURS = ("gpt-4o-mini-2024-07-18-300k", 33.28, 36.01)
TABLE_7_QUOTED = (
    ("llama-3-8b.magpie-pro-mt-300k-v0.1.full", "LLaMA-3-8B (Full) on Magpie-Pro-MT-300K-v0.1", 20.6, 38.56),
    ("llama-3-8b.magpie-align-v0.1.full", "LLaMA-3-8B (Full) on Magpie-Pro-MT-300K-v0.1, + UltraFeedback", 32.4, 41.18),
)
TABLE_7_INSTRUCT = ("llama-3-8b-instruct", 20.6, 76.08)

# Percent of 2,000 documents that are instruction data, and that hold a dialogue.
TABLE_8 = {
    "original": (0.45, 13.4),
    "gpt-4-0125-preview": (0.7, 8.3),
    "claude-3-haiku-20240307": (0.9, 8.75),
    "claude-3-sonnet-20240229": (1.1, 7.45),
    "claude-3-opus-20240229": (0.95, 8.9),
    "alpaca": (99.3, 1.4),
    "random_article": (0.5, 0.0),
    "random_dialogue": (0.3, 100.0),
}

# MT-Bench of Mistral-7B-v0.1 on 1,000 pairs of a teacher, and on those without what was flagged.
TABLE_9 = {
    "original": (3.83, 3.74),
    "gpt-4-0125-preview": (6.28, 6.26),
    "claude-3-haiku-20240307": (6.12, 6.20),
    "claude-3-sonnet-20240229": (6.30, 6.26),
    "claude-3-opus-20240229": (6.22, 6.27),
}

# By the ID of Table 1: the average, then the tasks. Table 4 is the first ten rows.
TABLE_15_COLUMNS = (
    "open_llm_leaderboard",
    "arc_challenge",
    "hellaswag",
    "mmlu",
    "truthfulqa_mc2",
    "winogrande",
    "gsm8k",
)
TABLE_15 = {
    1: (50.97, 53.07, 78.59, 46.87, 38.76, 74.03, 14.48),
    2: (50.74, 52.9, 78.55, 48.32, 45.57, 71.74, 7.35),
    3: (50.65, 53.41, 78.62, 46.26, 38.82, 74.66, 12.13),
    4: (49.49, 53.84, 74.65, 46.36, 39.06, 71.03, 11.98),
    5: (50.64, 53.84, 75.77, 46.13, 41.42, 72.06, 14.63),
    6: (50.27, 51.45, 69.38, 48.20, 46.62, 67.40, 18.57),
    7: (51.75, 52.05, 73.89, 48.19, 44.35, 71.98, 20.02),
    8: (52.71, 55.55, 77.27, 46.75, 48.63, 74.03, 14.03),
    9: (49.86, 52.56, 71.37, 48.34, 48.22, 66.61, 12.05),
    10: (52.98, 54.78, 74.63, 48.79, 48.45, 72.85, 18.35),
    11: (60.97, 59.98, 83.31, 64.16, 42.15, 78.37, 37.83),
    12: (61.01, 61.52, 83.57, 63.35, 43.02, 78.53, 36.09),
    13: (62.00, 62.8, 81.05, 63.21, 54.60, 74.03, 36.32),
    14: (54.96, 54.52, 75.63, 55.38, 56.28, 73.72, 14.25),
    15: (54.78, 53.67, 73.58, 54.52, 56.81, 72.38, 17.74),
    16: (57.27, 55.12, 74.79, 56.13, 57.51, 72.61, 27.45),
    17: (65.71, 63.14, 84.88, 60.78, 68.26, 77.19, 40.03),
    18: (60.82, 59.47, 79.70, 58.22, 68.32, 70.32, 28.89),
    19: (62.51, 58.02, 78.89, 60.69, 63.95, 74.66, 38.82),
    20: (62.62, 60.24, 82.23, 66.7, 42.93, 78.45, 45.19),
    21: (66.87, 60.75, 78.55, 67.07, 51.65, 74.51, 68.69),
    22: (63.67, 60.49, 80.92, 67.2, 55.43, 76.00, 42.00),
    23: (64.88, 62.37, 78.55, 65.5, 54.06, 74.35, 54.44),
    24: (60.10, 58.36, 72.76, 64.7, 54.12, 70.09, 40.56),
}
TABLE_4_IDS = range(1, 11)

# Thousands of pairs. The figure prints no numbers: of 10,000 and 80,000 they stand in Tables 3 and 1.
FIGURE_2 = {1: None, 2: None, 5: None, 10: 6.75, 20: None, 40: None, 80: 7.29}

# Numbers of the text: MT-Bench without the 7,000 that begin with a capital (section 6), Arena-Hard after LoRA on
# MAGPIE (section 5), and the win rate of Llama-3.1-70B-Instruct that 57.0 is held against (section 5).
SECTION_6_73K = 7.31
SECTION_5_MAGPIE = 50.2
SECTION_5_LLAMA_3_1 = 55.7

# Arena-Hard questions of Tables 10 (11 has the whole of it), 12, 13 and 14.
EXAMPLES = (
    ("table_10", "037edf47ede9428b9ef91c737d6f7a9c"),
    ("table_12", "0977f592078f4203bf66c0dfce5f6b66"),
    ("table_13", "09a13c982d7742eaacf3a2806c00b6d8"),
    ("table_14", "0dea89391d074b73a19c8e48ece8640c"),
)

INCONSISTENCIES = (
    "Table 2 prints 9.00, the highest score, for Llama-3-70B lora-base on Claude 3 Opus; the text gives it to the "
    "fine-tuned Llama-3-70B-Instruct, for which the table prints 8.80.",
    "Section 5 says that the leaderboard's average declines nowhere; against the models as they were, Tables 1 and 15 "
    "print declines for IDs 3, 4, 5, 6, 9, 15, 18, 19, 23 and 24.",
    "Section 5 says that fine-tuned Mistral-7B-v0.1 does modestly better on Arena-Hard than Mistral-7B-Instruct-v0.2; "
    "Table 5 prints 10.0 and 12.57.",
    "Section 5 says that merging a foundation model's adapter into its Instruct sibling improves it; on MT-Bench Table "
    "1 prints declines for both Mistral Instruct models (IDs 15 and 18).",
    "The abstract calls 57.0 on Arena-Hard comparable with Llama-3.1-70B-Instruct's 55.7, the introduction a "
    "surpassing; the benchmark's own intervals of about 2.5 to 2.9 either way overlap.",
    "Table 15 is called full, but has no rows for the 70B models; Table 1 prints averages for two of them, IDs 25 and "
    "26.",
    "Table 7 prints 20.6 on Arena-Hard for Llama-3-8B trained on MAGPIE and for Llama-3-8B-Instruct alike.",
    "Table 7 calls the training data of its first row OpenWebText; it is what gpt-4o-mini wrote (Table 6).",
    "Table 1 calls the same control OpenWebText in ID 3 and undistilled in ID 12.",
    "Mistral-7B-Instruct-v0.2 was made from Mistral-7B-v0.2; the adapter of its lora-base row, ID 18, was trained on "
    "Mistral-7B-v0.1, the only Mistral foundation model of the paper.",
    "The checklist says that the number of runs is not stated; section 5 says three, once as rounds of judging and "
    "once as runs of inference.",
    "Appendix D announces 10 more examples, the caption of Table 10 announces 3; there are 3.",
    "LLaMA-Factory 0.5.2 is two months older than Llama 3, which was trained with it.",
)
