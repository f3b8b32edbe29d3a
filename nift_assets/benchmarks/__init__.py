"""The benchmarks: their files, what is asked, how answers are judged and scored."""
