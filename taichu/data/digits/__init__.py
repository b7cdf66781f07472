"""The digits data set: ten digits seen, heard, moving, solid and named, from pip packages alone."""
