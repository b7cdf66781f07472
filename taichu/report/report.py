write_report=None
