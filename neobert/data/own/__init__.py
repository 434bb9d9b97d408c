"""The user's own files: csv, tsv, json, jsonl and parquet."""
