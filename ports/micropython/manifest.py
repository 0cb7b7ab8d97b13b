"""For a firmware with the runtime frozen in, where its code takes no RAM: name this file as
FROZEN_MANIFEST when MicroPython is built, or `include()` it in a manifest of your own."""

package("tinytrain_mp")  # noqa: F821  (MicroPython's makemanifest gives this name)
