"""Importers: data of other shapes into the system of record. An import is one transaction and may be repeated."""
