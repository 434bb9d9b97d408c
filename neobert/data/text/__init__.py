"""Text to pretrain on: from files to rows of tokens, in an order that survives interruptions.

documents   files -> blocks of documents (lines, JSON lines, parquet, arrow, the hub)
pieces      documents -> pieces: token ids between [CLS] and [SEP], long documents cut
shards      pieces on disk, memory-mapped, with a manifest
sources     pieces by block, in an order of each epoch: from shards, or from the files themselves
packing     pieces -> rows
masking     which tokens are to be guessed
stream      rows -> batches of a process; where it stopped, and from where it goes on
"""
