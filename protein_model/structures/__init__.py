
import gzip, numpy as np, gemmi
from pathlib import Path
from .structure import Structure
RESIDUE_LETTERS = "ACDEFGHIKLMNPQRSTVWYX"; UNKNOWN_RESIDUE = 20
STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
class StructureError(ValueError):
    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}"); self.path=path; self.reason=reason
def sequence_of(t): return "".join(RESIDUE_LETTERS[i] for i in t)
def read_structure(path):
    st=gemmi.read_structure(str(path)); rows=[]; chains=[]
    for ch in st[0]:
        res=[r for r in ch if gemmi.find_tabulated_residue(r.name).is_amino_acid() and r.find_atom("CA","*")]
        if not res: continue
        chains.append(ch.name)
        for k,r in enumerate(res): rows.append((len(chains)-1,r))
    n=len(rows)
    if not n: raise StructureError(path,"no protein")
    X=np.zeros((n,14,3),np.float32); M=np.zeros((n,14),bool); T=np.full(n,20,np.int8)
    for i,(c,r) in enumerate(rows):
        l=gemmi.find_tabulated_residue(r.name).one_letter_code.upper(); T[i]=RESIDUE_LETTERS.find(l) if l in RESIDUE_LETTERS else 20
        for a,nm in enumerate(("N","CA","C","O","CB")):
            at=r.find_atom(nm,"*")
            if at: X[i,a]=at.pos.tolist(); M[i,a]=True
    return Structure(Path(path).name.split(".")[0],T,X,M,np.zeros((n,14),np.float32),M.astype(np.float32),np.array([c for c,_ in rows],np.int16),tuple(chains),np.array([r.seqid.num for _,r in rows],np.int32),np.array([r.seqid.icode for _,r in rows]),np.arange(n,dtype=np.int32))
def write_fasta(path, records): Path(path).write_text("".join(f">{h}\n{s}\n" for h,s in records))
def find_structure_files(p):
    p=Path(p); return sorted(q for q in p.rglob("*") if q.name.endswith(STRUCTURE_ENDINGS)) if p.is_dir() else [p]
def encode_sequence(s): return np.array([RESIDUE_LETTERS.find(c) if c in RESIDUE_LETTERS else 20 for c in s],np.int8)
