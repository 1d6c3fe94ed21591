"""What the notebooks share. A folder imports only from those before it:

common < data < codecs < training < evaluation < verdict < report < run; simulation stands on common and data.
"""
