"""What `neobert fetch` does: brings models and data sets of the hub into the cache of the Hugging Face libraries.

command      the command
models       which files of a model, or of a tokenizer alone; and the code that lies in other repositories
data_sets    which files of a data set, and its preparation
repository   downloads files of a repository, verifies them, and mends what is damaged
checksums    whether a file is what the hub says of it
failures     what went wrong, in one sentence
"""
