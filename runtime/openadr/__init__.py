"""A virtual end node of OpenADR 3: limits, dispatch, prices and events of a utility, and reports back."""
