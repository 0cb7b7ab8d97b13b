"""What runs a planned training step where there is no tinytrain: one folder a port, and the table
that all of them read. A port holds only what differs."""

if __name__ == "ports":
    raise ImportError("ports is a folder of tinytrain's checkout: import tinytrain.ports instead")
