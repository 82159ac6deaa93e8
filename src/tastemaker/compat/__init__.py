"""Other libraries' import names, mapped onto ours."""
