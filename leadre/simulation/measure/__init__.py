"""What a simulation is told by: lifts with intervals, plain figures, pictures. Ours."""
