"""The program rig-thermal: the graphics card's temperature, watched, told, and acted upon."""
