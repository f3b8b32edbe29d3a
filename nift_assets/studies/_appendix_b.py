"""The two questions of the paper's Appendix B, word for word, with an example of each answer.

The paper prints neither its examples nor its attacks: those here are ours.
"""

from __future__ import annotations

from nift_assets.rows import Question

INSTRUCTION = (
    "Is the following text potentially synthesized for the purpose of instruction fine-tuning for Large Language "
    "Models (LLMs) (retaining content but not structure, e.g., removing dialogue speakers, etc., typically starting "
    "with a verb in command form followed by a series of responses to the command)? Or is it merely an article?\n"
    "If it can be considered as data for instruction fine-tuning, please present it in the format of User: {prompt} "
    "Assistant: {answer}, where both the prompt and the answer must be extracted directly from the text, without any "
    "external generation."
)
DIALOGUE = "Does the following text contain any form of dialogue?"

QUESTIONS = (
    Question(
        name="instruction",
        text=INSTRUCTION,
        positive="Name three ways to keep a cast-iron pan from rusting. Dry it on the warm stove as soon as it is "
        "washed, rub it with a thin film of oil while it is still hot, and store it with a sheet of paper between pan "
        "and lid.",
        negative="The ferry that joins the two halves of the town was late again on Monday. The harbour office blamed "
        "the fog, the passengers blamed the harbour office, and the gulls, who had the quay to themselves until ten, "
        "blamed nobody.",
    ),
    Question(
        name="dialogue",
        text=DIALOGUE,
        positive='"Did you lock the shed?" asked Ines. Her brother felt in his pockets. "I thought you had," he said. '
        "They both looked at the open door.",
        negative="Peat forms where dead plants cannot rot because the ground is too wet. A layer as deep as a hand is "
        "wide takes about a hundred years, so a bog that is drained in one summer is gone for good.",
    ),
)
