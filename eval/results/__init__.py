"""Shared by the evaluations: runs stored in files, jobs in processes, statistics, tables, figures."""
