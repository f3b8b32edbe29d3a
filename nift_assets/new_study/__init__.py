"""What a new study is made of, looked at before it is written down: a corpus, a server, a model's folder or repository.

Each look gives a value with what was found and lines for a person; `study_file` writes the study that says it. Nothing
is stored, nobody is asked a question that costs anything, and no weights are read.
"""
