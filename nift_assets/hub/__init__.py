"""Publishing to the Hugging Face Hub: what lies in a repository, what is written there, and the cards beside it."""
