"""What the notebooks share. Data flows one way:

libero_hdf5 -> episodes -> split -> chunks -> dataset -> training -> codecs -> evaluation -> criteria -> report
"""
