"""The benchmarks behind every figure that the README states."""

if __name__ == "bench":
    raise ImportError("bench is a folder of tinytrain's checkout: import tinytrain.bench instead")
