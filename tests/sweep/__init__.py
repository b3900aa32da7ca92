"""Every decomposition and every lowering, each alone, against the operator that it stands for."""
