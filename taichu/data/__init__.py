"""From files to packed batches: manifests, prepared grids, layouts, packing."""
