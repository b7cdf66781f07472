"""Conversations: files of many formats to turns, turns by a chat template to packed batches."""
