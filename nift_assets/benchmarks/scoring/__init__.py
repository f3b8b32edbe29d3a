"""What the files of benchmarks are put together from: files, verdicts, answers, scores. Nothing here names one."""
