"""Two states of a study's tables beside each other: rows with the reason, texts, the funnel, scores and dollars."""
