"""What the evaluations share: runs kept in files, jobs in processes, statistics, tables, figures."""
