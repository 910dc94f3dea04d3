"""Writers of data: what samples become on disk or in other libraries."""
