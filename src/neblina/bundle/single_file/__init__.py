"""Checkpoints in one file, in the layout of the original trainers, read as the components of diffusers' folders.

`read.py` puts it together; `checkpoint.py` and `pickles.py` read tensors from files without running what is in them;
`families.py` tells what a file is; `unet.py`, `autoencoder.py`, `text.py` and `dit.py` know the two layouts of a part.
"""
