"""Other people's weights: files, names and layouts of Hugging Face's models, from and to ours."""
