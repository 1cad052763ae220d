"""Samplers: token ids in; token ids and their logprobs out."""
