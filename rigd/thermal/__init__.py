"""The program rig-thermal: it watches and reports the GPU's temperature, and takes measures against heat."""
