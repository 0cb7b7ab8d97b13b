"""The kernels of each backend: destination first, never allocating, importing no tinytrain."""

if __name__ == "kernels":
    raise ImportError(
        "kernels is a folder of tinytrain's checkout: import tinytrain.kernels instead"
    )
