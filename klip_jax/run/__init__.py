"""Many images: a job is built and checked, claimed, run chunk by chunk and stored."""
