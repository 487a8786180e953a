"""The commands of `aiodocker-images`, one file for each group."""
