"""The plain core: each noun in one readable file, right for every task, data type and device."""
