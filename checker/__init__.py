"""quant-verify: is this model really quantized, as declared, and does it still behave?"""

__version__ = "0.1.0"
