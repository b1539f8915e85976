-- ARGV: now in ms or ''. Returns 1 when a claim would bring something, else 0.
return due(clock(ARGV[1])) and 1 or 0
