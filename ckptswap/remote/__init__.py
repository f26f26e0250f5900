"""Checkpoints that lie elsewhere: on web servers, on Hugging Face's hub, in buckets of S3.

They are read by ranges, so that a command fetches what it looks at and nothing else. Nothing is written there.
"""
