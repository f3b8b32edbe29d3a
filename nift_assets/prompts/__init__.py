"""What teachers, auditors and the writers of controls are asked, and their answers as rows."""
