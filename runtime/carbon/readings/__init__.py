"""Register readings that come by file, plain or signed (OCMF): water, heat, energy of meters on no bus."""
