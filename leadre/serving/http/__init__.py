"""HTTP for the request path: routes, typed contracts, limits, and a server without a framework. LEADRE §4.4.1."""
